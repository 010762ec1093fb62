package script

import (
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
)

func TestNoClient(t *testing.T) {
	var client *redis.Client
	var cluster *redis.ClusterClient
	assert.True(t, NoClient(nil))
	assert.True(t, NoClient(client))
	assert.True(t, NoClient(cluster))

	made := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer made.Close()
	assert.False(t, NoClient(made))
}
