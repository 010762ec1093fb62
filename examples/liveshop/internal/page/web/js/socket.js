// The WebSocket of one room, kept alive: a one-time token for each connection, a
// heartbeat, reconnecting with growing pauses, and resuming behind the last frame
// seen, so that a cut costs nothing that matters.
import { ApiError, get } from "./api.js";
import { sync } from "./clock.js";

const beat = 5_000;   // ms between pings
const silence = 15_000; // ms without a frame: the connection is dead
const firstPause = 400; // ms
const longestPause = 8_000;
const typicalTrip = 80; // ms, if nothing better is known of the clock
const remember = 512; // ids of frames, against seeing one twice

// owed says whether the server sends a frame once more unless it is acknowledged: those
// that name the one before them, and those to this visitor alone.
const owed = (frame) => frame.prev !== undefined || !frame.room;

export class RoomSocket {
  #room;
  #on;
  #socket = null;
  #seq = 0;   // of the last numbered frame
  #epoch = 0; // when the room's numbers began: without it a seq means nothing
  #seen = new Set();
  #tries = 0;
  #read = 0;  // up to where the server knows that this was seen
  #met = false; // a hello was heard once: the next connection resumes
  #heard = 0;
  #pulse;
  #retry;
  #turn = 0; // of the attempt to connect that counts: the last one
  #ended = false;

  // on: frame(frame), state("connecting" | "live" | "reconnecting" | "refused"),
  // gap(): frames are missing that the server no longer has.
  constructor(room, on) {
    this.#room = room;
    this.#on = on;
    this.#pulse = setInterval(() => this.#check(), beat);
    addEventListener("online", this.#hurry);
    this.#connect();
  }

  get seq() {
    return this.#seq;
  }

  send(t, d) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(d === undefined ? { t } : { t, ...d }));
    return true;
  }

  close() {
    this.#ended = true;
    this.#sayRead();
    clearInterval(this.#pulse);
    clearTimeout(this.#retry);
    removeEventListener("online", this.#hurry);
    this.#socket?.close();
  }

  #hurry = () => {
    if (this.#socket === null) this.#later(0);
  };

  async #connect() {
    this.#on.state(this.#met ? "reconnecting" : "connecting");
    const turn = ++this.#turn;
    let ticket;
    try {
      ticket = await get(`/rooms/${this.#room}/im`);
    } catch (err) {
      if (this.#ended || turn !== this.#turn) return;
      const never = err instanceof ApiError && [401, 403, 404, 409].includes(err.status);
      if (never) this.#on.state("refused");
      else this.#later();
      return;
    }
    if (this.#ended || turn !== this.#turn) return;
    // A browser cannot send a header with this: hence the token for one connection only.
    const address = new URL(ticket.ws, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams({ token: ticket.token, ...(this.#met && { seq: this.#seq, epoch: this.#epoch }) });
    const socket = new WebSocket(address);
    this.#socket = socket;
    this.#heard = performance.now();
    socket.onmessage = (message) => this.#take(JSON.parse(message.data));
    socket.onclose = () => this.#lost(socket);
  }

  #take(frame) {
    this.#heard = performance.now();
    if (frame.t === "hello") {
      this.#hello(frame);
      return;
    }
    if (frame.seq > this.#seq) this.#seq = frame.seq;
    if (frame.id) {
      if (owed(frame)) this.send("ack", { id: frame.id });
      if (this.#seen.has(frame.id)) return;
      this.#seen.add(frame.id);
      if (this.#seen.size > remember) this.#seen.delete(this.#seen.values().next().value);
    }
    this.#on.frame(frame);
    // A server that stops says so: the others take over at once.
    if (frame.t === "bye") this.#socket?.close();
  }

  // What was missed follows hello, if the server still has it.
  #hello(frame) {
    sync(frame.d.server_time, typicalTrip);
    const gap = this.#met && !frame.d.recovered;
    if (!frame.d.recovered) this.#seq = frame.d.seq;
    this.#epoch = frame.d.epoch;
    this.#met = true;
    this.#tries = 0;
    this.#on.state("live");
    this.#on.frame(frame);
    if (gap) this.#on.gap();
  }

  #check() {
    if (this.#socket === null) return;
    if (performance.now() - this.#heard > silence) this.#lost(this.#socket);
    else this.send("ping");
    this.#sayRead();
  }

  #sayRead() {
    if (!document.hidden && this.#seq > this.#read && this.send("read", { seq: this.#seq })) this.#read = this.#seq;
  }

  #lost(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    socket.onclose = socket.onmessage = null;
    socket.close();
    if (!this.#ended) this.#later();
  }

  #later(pause = Math.min(longestPause, firstPause * 2 ** this.#tries++) * (0.5 + Math.random() / 2)) {
    clearTimeout(this.#retry);
    this.#on.state(this.#met ? "reconnecting" : "connecting");
    this.#retry = setTimeout(() => this.#connect(), pause);
  }
}
