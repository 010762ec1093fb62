package main

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/spillway-go/spillway/examples/liveshop/internal/infra"
)

type service struct {
	Image       string
	Environment map[string]string
	Volumes     []string
	Healthcheck struct{ Test []string }
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
}

// official are the images that may be used: Docker's own, and Prometheus's from its makers.
var official = regexp.MustCompile(`^(redis|mysql|golang|alpine|prom/prometheus):v?\d+\.\d+\.\d+(-alpine\d+\.\d+)?$`)

func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	require.NoError(t, err)
	var file struct {
		Version  any
		Services map[string]service
		Volumes  map[string]any
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	require.Nil(t, file.Version, "Compose ignores it and warns")
	twins := map[string]*flag.Flag{}
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	serve(fs)
	fs.VisitAll(func(f *flag.Flag) { twins[infra.Twin(f.Name)] = f })

	servers := map[string]bool{}
	for name, s := range file.Services {
		require.NotEmpty(t, s.Healthcheck.Test, name)
		if s.Image != "liveshop" {
			require.Regexp(t, official, s.Image, name)
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			_, named := file.Volumes[source]
			require.True(t, named || strings.HasPrefix(source, "./"), "%s: volume %s has no name", name, source)
		}
		for other, d := range s.DependsOn {
			require.Contains(t, file.Services, other)
			require.Equal(t, "service_healthy", d.Condition, "%s on %s", name, other)
		}
		for key, value := range s.Environment {
			if !strings.HasPrefix(key, "LIVESHOP_") {
				continue
			}
			require.Contains(t, twins, key, "%s: no flag has this twin", name)
			require.NotRegexp(t, `127\.0\.0\.1|localhost`, value, "%s: %s is another container", name, key)
			if key == "LIVESHOP_SERVER" {
				require.False(t, servers[value], "two servers are called %s", value)
				servers[value] = true
			}
			// Where data is, is a service of this file.
			if key == "LIVESHOP_REDIS" || key == "LIVESHOP_DB" {
				require.True(t, slices.ContainsFunc([]string{"redis:6379", "@tcp(mysql:3306)/"}, func(s string) bool {
					return strings.Contains(value, s)
				}), value)
			}
		}
	}
	require.Len(t, servers, 3)
}

func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	images := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(string(text), -1)
	require.Len(t, images, 2)
	for _, image := range images {
		require.Regexp(t, official, image[1])
	}
	require.Contains(t, string(text), `CMD ["serve"]`)
}

func TestPrometheusAsksTheServers(t *testing.T) {
	var config struct {
		Scrape []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	text, err := os.ReadFile("prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &config))
	require.Equal(t, []string{"server1:8080", "server2:8080", "server3:8080"}, config.Scrape[0].Static[0].Targets)
}

func TestTwins(t *testing.T) {
	parse := func(args ...string) (infra.Config, error) {
		var cfg infra.Config
		fs := flag.NewFlagSet("serve", flag.ContinueOnError)
		fs.SetOutput(discard{})
		cfg.Flags(fs)
		cfg.ServerFlags(fs)
		err := infra.Parse(fs, args)
		return cfg, err
	}
	t.Setenv("LIVESHOP_REDIS_CLUSTER", "a:1,b:2")
	t.Setenv("LIVESHOP_ADDR", "0.0.0.0:1")
	cfg, err := parse("-addr", "127.0.0.1:2")
	require.NoError(t, err)
	require.Equal(t, "a:1,b:2", cfg.Cluster)
	require.Equal(t, "127.0.0.1:2", cfg.Addr, "a flag is stronger than its twin")
	_, err = parse("serve")
	require.ErrorContains(t, err, "unexpected argument")
	_, err = parse("-unknown")
	require.Error(t, err)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
