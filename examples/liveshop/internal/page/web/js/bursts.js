// Sparks of gifts and hearts of likes.
import { reducedMotion } from "./motion.js";

const most = 320; // particles at once
const gravity = 150; // px/s²
const golds = ["#ffc857", "#ffe3a1", "#ff8a5c", "#ffffff", "#ff5d7a"];

export class Bursts {
  #sparks = [];
  #hearts = [];

  // gift bursts in the middle; the dearer the gift (fen), the more of it.
  gift(fen) {
    if (reducedMotion()) return;
    const n = Math.min(140, 24 + Math.floor(Math.sqrt(Math.max(0, fen))));
    const x = 0.35 + 0.3 * Math.random();
    for (let i = 0; i < n && this.#sparks.length < most; i++) {
      const angle = Math.random() * 2 * Math.PI;
      const speed = 40 + Math.random() * 210;
      this.#sparks.push({
        x, y: 0.42, dx: 0, dy: 0,
        vx: Math.cos(angle) * speed, vy: Math.sin(angle) * speed - 60,
        size: 1.5 + Math.random() * 3.5, age: 0, life: 0.9 + Math.random() * 0.9,
        colour: golds[Math.floor(Math.random() * golds.length)],
      });
    }
  }

  like(n = 1) {
    if (reducedMotion()) return;
    for (let i = 0; i < Math.min(n, 6) && this.#hearts.length < 40; i++) {
      this.#hearts.push({ x: 0.88 + Math.random() * 0.08, age: -0.12 * i, life: 2 + Math.random(), sway: Math.random() * 6, hue: 335 + Math.random() * 45 });
    }
  }

  draw(ctx, width, height, dt) {
    for (const s of this.#sparks) {
      s.age += dt;
      s.vy += gravity * dt;
      s.dx += s.vx * dt;
      s.dy += s.vy * dt;
      ctx.globalAlpha = Math.max(0, 1 - s.age / s.life);
      ctx.fillStyle = s.colour;
      ctx.beginPath();
      ctx.arc(s.x * width + s.dx, s.y * height + s.dy, s.size, 0, 7);
      ctx.fill();
    }
    for (const h of this.#hearts) {
      h.age += dt;
      if (h.age < 0) continue;
      const part = h.age / h.life;
      ctx.globalAlpha = Math.max(0, 1 - part);
      ctx.fillStyle = `hsl(${h.hue} 90% 66%)`;
      heart(ctx, h.x * width + Math.sin(h.age * 3 + h.sway) * 14, height * (0.92 - 0.6 * part), 9 + 7 * Math.min(1, part * 4));
    }
    ctx.globalAlpha = 1;
    this.#sparks = this.#sparks.filter((s) => s.age < s.life);
    this.#hearts = this.#hearts.filter((h) => h.age < h.life);
  }
}

function heart(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x, y + size * 0.8);
  ctx.bezierCurveTo(x - size * 1.3, y - size * 0.1, x - size * 0.7, y - size * 1.1, x, y - size * 0.4);
  ctx.bezierCurveTo(x + size * 0.7, y - size * 1.1, x + size * 1.3, y - size * 0.1, x, y + size * 0.8);
  ctx.fill();
}
