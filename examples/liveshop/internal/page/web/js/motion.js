// Whether things may fly about. Asked each time: the setting may change while the
// page is open.
const reduce = matchMedia("(prefers-reduced-motion: reduce)");

export const reducedMotion = () => reduce.matches;

// onMotionChange calls f at each change until the returned function is called.
export function onMotionChange(f) {
  reduce.addEventListener("change", f);
  return () => reduce.removeEventListener("change", f);
}
