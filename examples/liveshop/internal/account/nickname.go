package account

var (
	manners = []string{
		"Amber", "Bold", "Brisk", "Calm", "Clever", "Cosy", "Daring", "Eager", "Fair", "Gentle", "Golden", "Happy", "Jolly", "Keen", "Lucky", "Mellow",
		"Merry", "Misty", "Noble", "Polite", "Proud", "Quick", "Quiet", "Rosy", "Silver", "Snowy", "Sunny", "Swift", "Velvet", "Warm", "Wild", "Wise",
	}
	animals = []string{
		"Badger", "Bear", "Beaver", "Crane", "Deer", "Dolphin", "Eagle", "Finch", "Fox", "Gecko", "Hare", "Heron", "Ibis", "Jay", "Koala", "Lark",
		"Lynx", "Magpie", "Marten", "Mole", "Moth", "Otter", "Owl", "Panda", "Quail", "Raven", "Robin", "Seal", "Sparrow", "Tiger", "Turtle", "Wren",
	}
)

// nickname is what others see of a new user, such as "Merry Otter". It tells nothing of
// the phone, and two users may have the same.
func nickname(uid int64) string {
	mixed := uint64(uid) * 0x9E3779B97F4A7C15 // neighbours in number have nothing else in common
	return manners[mixed>>59] + " " + animals[mixed>>54&31]
}
