// Likes. Whoever likes does it often: clicks of half a second go out as one request.
import { call } from "./api.js";
import { iconButton } from "./dom.js";
import { icon } from "./icons.js";
import { loggedIn } from "./login.js";

const collect = 500; // ms
const most = 20;     // in one request

// likeButton calls liked() at each click, before any answer.
export function likeButton(room, liked) {
  let clicks = 0, timer = 0;
  return iconButton(icon("heart"), "like", {
    class: "round like",
    async onclick() {
      if (!(await loggedIn())) return;
      clicks++;
      liked();
      timer ||= setTimeout(() => {
        timer = 0;
        const n = Math.min(clicks, most);
        clicks = 0;
        // A like that is lost is not worth a message.
        call("POST", `/rooms/${room}/like`, { n }).catch(() => {});
      }, collect);
    },
  });
}
