// Command grafana checks a dashboard against Grafana's own types, strictly: unknown and missing
// members are errors, those of panels and queries included.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	content, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = (&dashboard.Dashboard{}).UnmarshalJSONStrict(content)
	}
	// A list of problems that may be empty.
	if err != nil && err.Error() != "" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
