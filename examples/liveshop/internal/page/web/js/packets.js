// Red packets that fall while a rain lasts. Which packet is hit decides nothing: the
// server does; so the button beside the stage is as good as a click.
import { reducedMotion } from "./motion.js";

const rate = 7; // a second
const most = 40;
const size = 30; // px, half the height

export class Packets {
  #until = 0;
  #due = 0;
  #falling = [];

  // rain lets packets fall until stop, or for ms.
  rain(ms) {
    this.#until = performance.now() + ms;
  }

  stop() {
    this.#until = 0;
    this.#falling = [];
  }

  // hit takes away the packet at a point of the stage, if one is there.
  hit(x, y) {
    const at = this.#falling.findLastIndex((p) => Math.abs(p.px - x) < size && Math.abs(p.py - y) < size + 6);
    if (at < 0) return false;
    this.#falling.splice(at, 1);
    return true;
  }

  draw(ctx, width, height, dt) {
    const on = performance.now() < this.#until;
    this.#due = on ? this.#due + dt * rate : 0;
    while (this.#due >= 1) {
      this.#due--;
      if (this.#falling.length < most && !reducedMotion()) {
        this.#falling.push({ x: 0.05 + 0.9 * Math.random(), y: -size, speed: 90 + 130 * Math.random(), turn: Math.random() * 6, spin: 0.6 + Math.random() });
      }
    }
    for (const p of this.#falling) {
      p.y += p.speed * dt;
      p.turn += p.spin * dt;
      p.px = p.x * width;
      p.py = p.y;
      packet(ctx, p.px, p.py, Math.sin(p.turn) * 0.35);
    }
    this.#falling = this.#falling.filter((p) => p.y < height + size);
  }
}

function packet(ctx, x, y, angle) {
  ctx.save();
  ctx.translate(x, y);
  ctx.rotate(angle);
  ctx.fillStyle = "#d81f3d";
  ctx.beginPath();
  ctx.roundRect(-size * 0.7, -size, size * 1.4, size * 2, 6);
  ctx.fill();
  ctx.fillStyle = "#f0405c";
  ctx.beginPath();
  ctx.roundRect(-size * 0.7, -size, size * 1.4, size * 0.7, [6, 6, 26, 26]);
  ctx.fill();
  ctx.fillStyle = "#ffc857";
  ctx.beginPath();
  ctx.arc(0, -size * 0.28, size * 0.3, 0, 7);
  ctx.fill();
  ctx.fillStyle = "#b3142e";
  ctx.font = "700 13px system-ui, sans-serif";
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText("¥", 0, -size * 0.26);
  ctx.restore();
}
