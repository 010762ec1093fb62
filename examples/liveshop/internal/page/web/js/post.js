// A post: it goes to everybody who follows the host.
import { key, send } from "./api.js";
import { el } from "./dom.js";
import { field, form, openDialog } from "./dialog.js";
import { toast } from "./toast.js";

export function openPost() {
  const text = el("textarea", { id: "post-text", required: true, maxlength: 500, rows: 4, hint: "host.post.hint" });
  let intent = {}; // the same text again is the same post
  const dialog = openDialog("desk.post", { class: "narrow" }, form("host.post.go", async () => {
    if (intent.text !== text.value) intent = { text: text.value, key: key() };
    await send("POST", "/posts", intent);
    dialog.close();
    toast("host.post.done", "good");
  }, field("host.post.text", text)));
  text.focus();
}
