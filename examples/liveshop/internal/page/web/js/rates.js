// Counters only grow; charts show what they grew by. A server that was restarted
// counts from nought again: its first figure is all growth.

export class Rates {
  #last = new Map(); // name → {value, at}

  // per is the growth a second since the last look, null at the first.
  per(name, value, at) {
    const last = this.#last.get(name);
    this.#last.set(name, { value, at });
    if (!last || at <= last.at) return null;
    const grown = value >= last.value ? value - last.value : value;
    return (grown * 1000) / (at - last.at);
  }
}
