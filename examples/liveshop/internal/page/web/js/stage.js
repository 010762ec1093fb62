// The canvas: layers painted over each other, once a frame while the page is looked at.
import { onMotionChange, reducedMotion } from "./motion.js";

const sharpest = 2; // device pixels a CSS pixel; more costs and shows nothing

export class Stage {
  #canvas;
  #ctx;
  #layers;
  #frame = 0;
  #last = 0;
  #size;
  #forget;

  constructor(canvas, layers) {
    this.#canvas = canvas;
    this.#ctx = canvas.getContext("2d");
    this.#layers = layers;
    this.#size = new ResizeObserver(() => this.#resize());
    this.#size.observe(canvas);
    this.#forget = onMotionChange(this.#draw);
    this.#frame = requestAnimationFrame(this.#draw);
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.#size.disconnect();
    this.#forget();
    this.#canvas = null;
  }

  // refresh paints once: with reduced motion nothing paints by itself.
  refresh() {
    if (reducedMotion()) this.#draw(performance.now());
  }

  #resize() {
    const scale = Math.min(sharpest, devicePixelRatio);
    this.#canvas.width = Math.round(this.#canvas.clientWidth * scale);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * scale);
    this.#ctx.setTransform(scale, 0, 0, scale, 0, 0);
    this.refresh();
  }

  #draw = () => {
    if (!this.#canvas) return;
    cancelAnimationFrame(this.#frame);
    const at = performance.now();
    const still = reducedMotion();
    // After a pause (another tab) nothing leaps.
    const dt = still ? 0 : Math.min(0.1, (at - this.#last) / 1000);
    this.#last = at;
    const { clientWidth, clientHeight } = this.#canvas;
    if (clientWidth > 0) for (const layer of this.#layers) layer.draw(this.#ctx, clientWidth, clientHeight, dt);
    if (!still) this.#frame = requestAnimationFrame(this.#draw);
  };
}
