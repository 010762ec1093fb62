// Starts the page: the header, the address behind # → a view, the operator's part.
import { accountTools } from "./account.js";
import { adopt } from "./i18n.js";
import { openLobby } from "./lobby.js";
import { operatorTools } from "./operator.js";
import { openRoom } from "./room.js";

const main = document.getElementById("main");
const siteName = document.title;
let leave = () => {};

function route() {
  leave();
  document.title = siteName;
  const room = location.hash.match(/^#\/rooms\/(\d+)$/);
  leave = room ? openRoom(main, room[1]) : openLobby(main);
  scrollTo(0, 0);
}

// A shared link leads to /?room=…
const shared = new URLSearchParams(location.search).get("room");
if (shared) history.replaceState(null, "", "/#/rooms/" + encodeURIComponent(shared));

adopt(document);
// What appears later stands first: the others keep their place under the pointer.
document.getElementById("tools").append(operatorTools(), ...accountTools());
document.getElementById("skip").addEventListener("click", () => main.focus());
addEventListener("hashchange", route);
route();
