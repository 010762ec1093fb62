// What stands on the stage: lights, the host in front of a disc that pulses with the
// room, and the heads of those who watch. Drawn, not filmed: there is no camera here.

const tau = 2 * Math.PI;

export class Backdrop {
  #hue;
  #time = 0;
  #energy = 0; // 0 to 1: what just happened in the room
  #crowd = 24;

  constructor(hue) {
    this.#hue = hue;
  }

  cheer(strength) {
    this.#energy = Math.min(1, this.#energy + strength);
  }

  set online(n) {
    this.#crowd = Math.min(60, 14 + Math.round(6 * Math.log2(1 + n)));
  }

  draw(ctx, w, h, dt) {
    this.#time += dt;
    this.#energy = Math.max(0, this.#energy - dt * 0.35);
    this.#wall(ctx, w, h);
    this.#beams(ctx, w, h);
    this.#disc(ctx, w, h);
    this.#host(ctx, w, h);
    this.#floor(ctx, w, h);
    this.#heads(ctx, w, h);
  }

  #wall(ctx, w, h) {
    const wall = ctx.createLinearGradient(0, 0, w, h);
    wall.addColorStop(0, `hsl(${this.#hue} 62% 17%)`);
    wall.addColorStop(0.55, `hsl(${this.#hue + 38} 58% 13%)`);
    wall.addColorStop(1, `hsl(${this.#hue + 80} 60% 9%)`);
    ctx.fillStyle = wall;
    ctx.fillRect(0, 0, w, h);
  }

  #beams(ctx, w, h) {
    ctx.save();
    ctx.globalCompositeOperation = "lighter";
    for (let i = 0; i < 5; i++) {
      const swing = Math.sin(this.#time * (0.32 + 0.07 * i) + i * 1.7) * 0.3;
      const x = w * (0.1 + 0.2 * i);
      const light = ctx.createLinearGradient(x, 0, x + Math.sin(swing) * h, h);
      light.addColorStop(0, `hsl(${this.#hue + i * 24} 95% 68% / ${0.26 + 0.2 * this.#energy})`);
      light.addColorStop(1, `hsl(${this.#hue + i * 24} 95% 60% / 0)`);
      ctx.fillStyle = light;
      ctx.beginPath();
      ctx.moveTo(x - 4, 0);
      ctx.lineTo(x + 4, 0);
      ctx.lineTo(x + Math.tan(swing + 0.16) * h, h);
      ctx.lineTo(x + Math.tan(swing - 0.16) * h, h);
      ctx.fill();
    }
    ctx.restore();
  }

  #disc(ctx, w, h) {
    const { x, y, r } = place(w, h);
    const glow = ctx.createRadialGradient(x, y, r * 0.3, x, y, r * 2);
    glow.addColorStop(0, `hsl(${this.#hue + 12} 95% 66% / 0.6)`);
    glow.addColorStop(0.5, `hsl(${this.#hue + 20} 95% 60% / 0.16)`);
    glow.addColorStop(1, `hsl(${this.#hue + 20} 95% 60% / 0)`);
    ctx.fillStyle = glow;
    ctx.fillRect(x - r * 2, y - r * 2, r * 4, r * 4);
    ctx.fillStyle = `hsl(${this.#hue + 8} 62% 54%)`;
    circle(ctx, x, y, r);
    ctx.fill();
    // A ring of bars, as a voice has.
    ctx.strokeStyle = `hsl(${this.#hue + 30} 100% 84% / 0.75)`;
    ctx.lineWidth = Math.max(2, r * 0.02);
    ctx.lineCap = "round";
    const bars = 64;
    ctx.beginPath();
    for (let i = 0; i < bars; i++) {
      const a = (i / bars) * tau;
      const voice = Math.abs(Math.sin(this.#time * 2.6 + i * 0.9) * Math.sin(this.#time * 1.3 + i * 0.37));
      const from = r * 1.09, to = from + r * (0.03 + (0.13 + 0.2 * this.#energy) * voice);
      ctx.moveTo(x + Math.cos(a) * from, y + Math.sin(a) * from);
      ctx.lineTo(x + Math.cos(a) * to, y + Math.sin(a) * to);
    }
    ctx.stroke();
  }

  #host(ctx, w, h) {
    const disc = place(w, h);
    const x = disc.x, u = disc.r / 3, nod = Math.sin(this.#time * 1.6) * u * 0.06;
    const y = disc.y - 0.3 * u + nod;
    ctx.save();
    circle(ctx, disc.x, disc.y, disc.r);
    ctx.clip();
    const coat = ctx.createLinearGradient(x - 2 * u, y, x + 2 * u, y + 3 * u);
    coat.addColorStop(0, `hsl(${this.#hue + 190} 45% 24%)`);
    coat.addColorStop(1, `hsl(${this.#hue + 210} 55% 12%)`);
    ctx.fillStyle = coat;
    ctx.beginPath();
    ctx.moveTo(x - 2.3 * u, y + 3.6 * u);
    ctx.bezierCurveTo(x - 2.2 * u, y + 1.5 * u, x - 1.2 * u, y + 1.35 * u, x, y + 1.3 * u);
    ctx.bezierCurveTo(x + 1.2 * u, y + 1.35 * u, x + 2.2 * u, y + 1.5 * u, x + 2.3 * u, y + 3.6 * u);
    ctx.fill();
    ctx.fillStyle = "#f4c9a8";
    ctx.fillRect(x - 0.34 * u, y + 0.5 * u, 0.68 * u, u);
    ctx.beginPath();
    ctx.ellipse(x, y, 0.86 * u, 1.02 * u, 0, 0, tau);
    ctx.fill();
    ctx.fillStyle = `hsl(${this.#hue + 200} 40% 11%)`; // hair and headset
    ctx.beginPath();
    ctx.ellipse(x, y - 0.3 * u, 0.98 * u, 0.95 * u, 0, Math.PI * 0.98, Math.PI * 2.02);
    ctx.bezierCurveTo(x + 0.6 * u, y - 0.5 * u, x - 0.1 * u, y - 0.25 * u, x - 0.98 * u, y - 0.26 * u);
    ctx.fill();
    ctx.strokeStyle = "#ffc857";
    ctx.lineWidth = 0.14 * u;
    ctx.beginPath();
    ctx.arc(x, y - 0.1 * u, 1.06 * u, Math.PI * 1.06, Math.PI * 1.94);
    ctx.stroke();
    ctx.fillStyle = "#ffc857";
    for (const side of [-1, 1]) {
      ctx.beginPath();
      ctx.roundRect(x + side * 1.02 * u - 0.17 * u, y - 0.2 * u, 0.34 * u, 0.62 * u, 0.15 * u);
      ctx.fill();
    }
    ctx.strokeStyle = "#7a3b2c";
    ctx.lineWidth = 0.1 * u;
    ctx.beginPath();
    ctx.arc(x, y + 0.32 * u, 0.3 * u, 0.15 * Math.PI, 0.85 * Math.PI);
    ctx.stroke();
    ctx.fillStyle = "#33201c";
    for (const side of [-1, 1]) {
      circle(ctx, x + side * 0.33 * u, y + 0.06 * u, 0.085 * u);
      ctx.fill();
    }
    ctx.restore();
  }

  #floor(ctx, w, h) {
    const dark = ctx.createLinearGradient(0, h * 0.62, 0, h);
    dark.addColorStop(0, "rgba(6, 6, 14, 0)");
    dark.addColorStop(1, "rgba(6, 6, 14, 0.82)");
    ctx.fillStyle = dark;
    ctx.fillRect(0, h * 0.62, w, h * 0.38);
  }

  #heads(ctx, w, h) {
    for (let row = 0; row < 2; row++) {
      ctx.fillStyle = row ? "#06060e" : `hsl(${this.#hue + 60} 40% 8%)`;
      const n = Math.round(this.#crowd / (row + 1.4)), r = Math.min(w, h) * (0.034 + 0.014 * row);
      for (let i = 0; i < n; i++) {
        const wobble = Math.sin(i * 12.9898 + row * 78.2) * 43758.5453;
        const part = wobble - Math.floor(wobble);
        const x = ((i + 0.5 + (part - 0.5) * 0.5) / n) * w;
        const jump = Math.abs(Math.sin(this.#time * (1.8 + part) + part * 9)) * h * (0.006 + 0.03 * this.#energy);
        const y = h * (0.93 + 0.045 * row) - jump + part * h * 0.02;
        circle(ctx, x, y, r);
        ctx.fill();
        ctx.beginPath();
        ctx.roundRect(x - r * 1.75, y + r * 0.85, r * 3.5, h, r);
        ctx.fill();
      }
    }
  }
}

// place is where the disc is: upright stages are as good as wide ones.
const place = (w, h) => ({ x: w / 2, y: h * 0.5, r: Math.min(h * 0.3, w * 0.3) });

function circle(ctx, x, y, r) {
  ctx.beginPath();
  ctx.arc(x, y, r, 0, tau);
}
