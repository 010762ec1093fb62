// Whether things may fly about. Asked each time: the setting may change while the
// page is open.
const reduce = matchMedia("(prefers-reduced-motion: reduce)");

export const reducedMotion = () => reduce.matches;
export const onMotionChange = (f) => reduce.addEventListener("change", f);
