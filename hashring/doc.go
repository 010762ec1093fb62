// Package hashring maps keys to nodes by consistent hashing, so that a fleet of
// caches, or of independent Redis servers, can grow, shrink and lose members while
// almost every key stays where it is.
//
// A [Ring] has three questions to answer:
//
//   - Get: which node has this key?
//   - GetN: which nodes have its replicas?
//   - Acquire: which node should do this work now? It spreads the load of a popular
//     key over its neighbours and counts what is under way.
//
// hashring/hotkey finds the keys that are too hot for any one node.
//
// # What it promises
//
// The answer depends on the ids, weights and health of the nodes, on
// Options.VirtualNodes and on the key, and on nothing else: not on the order in
// which nodes were added, nor the machine, nor the release. Golden vectors hold it.
//
// A node that leaves takes only its own keys with it, a node that comes takes only
// the keys that it will have, and more weight only attracts keys. The same for nodes
// that go down and come back. Two points of the ring with one hash lose no node.
//
// Keys spread evenly: with 10 nodes of the same weight and the default of 512
// points each, a node's share deviates by 4.4 % (standard deviation) and the largest
// is about 7 % above the mean.
//
// Acquire never gives a node more than ceil(LoadFactor · average · weight) of the
// work under way, the average taken over the nodes that are up and the new unit
// included; what is above is given to the next node clockwise.
//
// Reads take no lock, allocate nothing, and see either all of an Update or
// nothing of it. A ring whose nodes are all down answers as if all were up; only an
// empty one has no answer.
//
// # What it does not
//
// It talks to no server: who is down is what SetDown was told. Processes that were
// told different things give different answers; so do processes with different
// lists of nodes.
//
// It moves no data. After an Update the keys that changed hands are missing on
// their new node.
//
// The counts of Acquire are those of this process, not of the fleet. When much work
// ends at once, a node may be left above the bound that the smaller average would
// give: work that runs is not moved. If many goroutines acquire and release in the
// same instant, a place may be taken between being seen and being claimed; after
// eight rounds of that Acquire takes the least loaded node, and Stats.Fallbacks
// counts it.
//
// Hashes are not keyed: whoever may choose keys freely can choose many for one node.
//
// # Redis keys it writes
//
// None.
//
// # When Redis is slow, down or fails over
//
// Nothing changes: the ring does not notice. Report what health checks find with
// SetDown, which brings a node back only after several good reports in a row
// (Options.Rise), so that a flapping node does not move its keys to and fro.
//
// # Cost per call
//
//	call       time                     allocations
//	Get        O(1)                     none
//	GetN       O(n) for n nodes         none beyond dst
//	Acquire    O(1); O(nodes) if full   none
//	Update     O(points log points)     the new index
//	SetDown    O(points) on a change    the new index
//
// A point takes 16 bytes in the list and 18 to 26 in the index: 100 nodes of weight 1
// make 51,200 points and take some 2 MB.
package hashring
