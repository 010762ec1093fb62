// Barrage: comments that cross the stage in lanes, right to left.
//
// All run at one speed, so that none catches up with the one before it; a lane is
// free again once the last comment's end has come in.
import { reducedMotion } from "./motion.js";

const height = 34;  // px a lane
const crossing = 9; // s from edge to edge
const space = 28;   // px between two comments of a lane
const waiting = 40; // comments; more than that and the oldest go: the chat has them all
const most = 6;     // lanes
const family = "system-ui, 'PingFang SC', 'Noto Sans CJK SC', sans-serif";
const font = "600 17px " + family;
const small = "600 14px " + family; // on a narrow stage
const colours = ["#ffffff", "#ffe1a3", "#b9f5e6", "#d9d3ff", "#ffc9d2"];

export class Lanes {
  #queue = [];
  #flying = [];

  #top;

  // top() is where the first lane begins, in px: below what else is on the stage.
  constructor(top) {
    this.#top = top;
  }

  // add lets a comment fly; one's own gets a frame and goes first.
  add(text, own) {
    if (reducedMotion()) return;
    const comment = { text: text.slice(0, 80), own, colour: colours[Math.floor(Math.random() * colours.length)] };
    if (own) this.#queue.unshift(comment);
    else this.#queue.push(comment);
    if (this.#queue.length > waiting) this.#queue.splice(this.#queue.findIndex((c) => !c.own), 1);
  }

  get count() {
    return this.#flying.length;
  }

  draw(ctx, width, stageHeight, dt) {
    ctx.save();
    ctx.font = width < 520 ? small : font;
    ctx.textBaseline = "middle";
    const top = this.#top();
    this.#start(ctx, width, Math.max(2, Math.min(most, Math.floor((stageHeight * 0.66 - top) / height))));
    for (const c of this.#flying) {
      c.x -= (width / crossing) * dt;
      this.#one(ctx, c, top + c.lane * height);
    }
    this.#flying = this.#flying.filter((c) => c.x + c.width > 0);
    ctx.restore();
  }

  #start(ctx, width, lanes) {
    for (let lane = 0; lane < lanes && this.#queue.length > 0; lane++) {
      const end = Math.max(0, ...this.#flying.filter((c) => c.lane === lane).map((c) => c.x + c.width));
      if (end + space > width) continue;
      const comment = this.#queue.shift();
      this.#flying.push({ ...comment, lane, x: width, width: ctx.measureText(comment.text).width });
    }
  }

  #one(ctx, c, y) {
    if (c.own) {
      ctx.fillStyle = "rgba(224, 48, 79, 0.78)";
      ctx.beginPath();
      ctx.roundRect(c.x - 11, y - 14, c.width + 22, 28, 14);
      ctx.fill();
    }
    ctx.lineWidth = 3;
    ctx.lineJoin = "round";
    ctx.strokeStyle = "rgba(6, 6, 14, 0.65)";
    if (!c.own) ctx.strokeText(c.text, c.x, y);
    ctx.fillStyle = c.own ? "#ffffff" : c.colour;
    ctx.fillText(c.text, c.x, y);
  }
}
