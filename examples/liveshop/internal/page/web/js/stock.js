// What is known of the stock of each SKU. A version is new with each sell-out and each
// return; news may overtake each other on the way here, and the highest version is the
// newest. Between two versions the figure only moves, and is as good as it is fresh.

export class Stock {
  #known = new Map(); // sku → {left, version}

  // apply takes {sku, left, version}; false if something newer, or this, is known.
  apply({ sku, left, version }) {
    const known = this.#known.get(sku);
    if (known && known.version > version) return false;
    // What is sold out stays so until there is a new version: this is an old figure.
    if (known && known.version === version && (known.left === 0 || known.left === left)) return false;
    this.#known.set(sku, { left, version });
    return true;
  }

  left(sku) {
    return this.#known.get(sku)?.left ?? 0;
  }
}
