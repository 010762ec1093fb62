package e2e

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Of what nobody can say how much is left, the shelf says that it is closed for the
// moment: neither is it sold out, nor can it be bought. What comes then counts again.
func TestShelfClosedForTheMoment(t *testing.T) {
	d, browser := start(t)
	p := open(t, browser, d.stage(t, 1).url(d))
	p.wait("the page", `document.querySelector(".stage")`)
	script := `import("/js/shelf.js").then(({ Shelf }) => {
		const shelf = new Shelf({}), seen = [];
		const tea = { sku: "tea", title: "Tea", image: "", fen: 990, total: 9, left: 0, version: 0, per_user: 0, opens: 0, closes: 0, edited: 1 };
		const item = (left, version, paused) => [{ sku: "tea", left, version, total: 9, edited: 1, ...(paused && { paused }) }];
		const look = () => {
			const row = shelf.node.querySelector(".ware-row");
			seen.push([row.querySelector(".stock").textContent, row.querySelector(".buy").textContent, row.querySelector(".buy").disabled, row.classList.contains("out"), shelf.selling].join());
		};
		shelf.show([{ ...tea, paused: true }]); look();
		shelf.take(item(7, 5)); look();
		shelf.take(item(0, 0, true)); look();
		shelf.show([{ ...tea, paused: true }]); look();
		shelf.show([{ ...tea, left: 7, version: 5 }]); look();
		shelf.take(item(0, 6)); look();
		shelf.take(item(0, 0, true)); shelf.end(); look();
		shelf.close();
		return JSON.stringify(seen);
	})`
	var seen []string
	if err := json.Unmarshal([]byte(eval[string](p, script)), &seen); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Closed for the moment,Wait,true,false,true",
		"7 left,Buy,false,false,true",
		"Closed for the moment,Wait,true,false,true",
		"Closed for the moment,Wait,true,false,true",
		"7 left,Buy,false,false,true",
		"Sold out,Gone,true,true,false",
		"Sale over,Over,true,false,true",
	}
	if !reflect.DeepEqual(seen, want) {
		t.Errorf("the shelf said\n%q\nand not\n%q", seen, want)
	}
}
