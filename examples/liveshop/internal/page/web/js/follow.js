// Following a host: their posts come to one's messages.
import { call } from "./api.js";
import { busy, el } from "./dom.js";
import { say } from "./i18n.js";
import { loggedIn } from "./login.js";
import { fail } from "./toast.js";

// followButton returns the button of a host; show(following) says how it stands.
export function followButton(host) {
  const node = el("button", { type: "button", class: "follow small", onclick: () => busy(node, toggle) });
  let following = false;

  function show(now) {
    following = Boolean(now);
    node.setAttribute("aria-pressed", String(following));
    say(node, following ? "follow.on" : "follow.off");
  }

  async function toggle() {
    if (!(await loggedIn())) return;
    try {
      await call("POST", `/users/${host}/${following ? "unfollow" : "follow"}`, {});
      show(!following);
    } catch (err) {
      fail(err);
    }
  }
  show(false);
  return { node, show };
}
