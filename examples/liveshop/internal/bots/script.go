package bots

// perUser is how many one user may have of anything in a room of a demo.
const perUser = 2

// rooms are those of a demo.
var rooms = []struct {
	title, kind string
	grants      []string
	shelf       []Product
}{
	{"Night market: everything for 9.9", "normal", []string{"star", "rain"}, []Product{
		{Title: "Noise-cancelling headphones", Image: "headphones", Fen: 29900, Total: 40, PerUser: perUser},
		{Title: "Travel mug", Image: "cup", Fen: 990, Total: 200, PerUser: perUser},
		{Title: "One of eight: signed poster", Image: "poster", Fen: 9900, Total: 8, PerUser: perUser},
	}},
	{"Sneaker drop with Lin", "normal", []string{"star"}, []Product{
		{Title: "Runner 3, limited", Image: "shoe", Fen: 89900, Total: 12, PerUser: perUser},
		{Title: "Laces, glow in the dark", Image: "box", Fen: 1900, Total: 150, PerUser: perUser},
	}},
	{"PK: who sings better?", "pk", []string{"rain"}, []Product{
		{Title: "Microphone", Image: "mic", Fen: 15900, Total: 30, PerUser: perUser},
	}},
	{"茶 · Tea from the mountains", "normal", nil, []Product{
		{Title: "Spring harvest, 100 g", Image: "leaf", Fen: 12800, Total: 60, PerUser: perUser},
		{Title: "Clay pot", Image: "pot", Fen: 45800, Total: 6, PerUser: perUser},
	}},
	{"Vintage watches, one of each", "normal", nil, []Product{
		{Title: "Diver, 1971", Image: "watch", Fen: 188000, Total: 1, PerUser: perUser},
		{Title: "Leather strap", Image: "watch", Fen: 8800, Total: 80, PerUser: perUser},
	}},
	{"Home by lamplight", "normal", nil, []Product{
		{Title: "Paper lamp", Image: "lamp", Fen: 16800, Total: 50, PerUser: perUser},
		{Title: "Linen bag", Image: "bag", Fen: 5900, Total: 120, PerUser: perUser},
	}},
}

// drops are what a host brings when all is sold.
var drops = []Product{
	{Title: "Surprise box", Image: "box", Fen: 6600, Total: 10, PerUser: perUser},
	{Title: "Last of the season", Image: "bag", Fen: 19900, Total: 20, PerUser: perUser},
	{Title: "Back again: travel mug", Image: "cup", Fen: 990, Total: 60, PerUser: perUser},
}

var talk = []string{
	"hello from Shenzhen!", "is it waterproof?", "got one!!", "how long is the warranty?", "sold out already?", "show the back please",
	"来了来了", "主播晚上好", "抢到了!", "还有货吗", "太便宜了吧", "好看", "666", "冲冲冲", "链接在哪里", "支持一下",
	"so fast", "first time here", "the blue one please", "do you ship to Norway?", "paid!", "love it",
}
