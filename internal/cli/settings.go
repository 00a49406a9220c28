package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/config"
)

func newConfig(s streams) *cobra.Command {
	return parent("config", "Write, check or show settings", newConfigInit(s), newConfigCheck(s), newConfigShow(s))
}

// jsonSetting is a setting as `config init --json` prints it.
type jsonSetting struct {
	Key     string `json:"key"`
	Flag    string `json:"flag"`
	Env     string `json:"env"`
	Type    string `json:"type"`
	Default string `json:"default"`
	Min     string `json:"min,omitempty"`
	Max     string `json:"max,omitempty"`
	Help    string `json:"help"`
}

func newConfigInit(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "init", Short: "Print a configuration file with every setting, its default and what it means", Args: args(cobra.NoArgs),
		Example: `  tidings config init > tidings.toml`,
		RunE: func(*cobra.Command, []string) error {
			c := config.Default()
			if asJSON {
				var out []jsonSetting
				for _, f := range c.Fields() {
					out = append(out, jsonSetting{f.Key(), "--" + f.Name, f.Env(), f.Type, f.Default, f.Min, f.Max, f.Help})
				}
				return printJSON(s.out, out)
			}
			return writeConfig(s, c)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// writeConfig writes the settings as TOML, each commented out at its default.
func writeConfig(s streams, c config.Config) error {
	if _, err := fmt.Fprint(s.out, "# tidings configuration. Take the # from a line to set it.\n\n"); err != nil {
		return err
	}
	for _, f := range c.Fields() {
		value := f.String()
		switch f.Type {
		case "bool", "int":
		case "list":
			value = fmt.Sprintf("[%s]", quoted(f.Value().([]string)))
		default:
			value = fmt.Sprintf("%q", value)
		}
		if _, err := fmt.Fprintf(s.out, "# %s\n#%s = %s\n\n", f.Help, f.Key(), value); err != nil {
			return err
		}
	}
	return nil
}

// quoted is the inside of a TOML array.
func quoted(values []string) string {
	for i, v := range values {
		values[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(values, ", ")
}

func newConfigCheck(s streams) *cobra.Command {
	var asJSON, nsqd bool
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: args(cobra.ExactArgs(1)),
		Long: `Check a configuration file. With --json, print every setting as a node started
with the file alone would have it.`,
		Example: `  tidings config check tidings.toml
  tidings config check --nsqd /etc/nsqd.cfg`,
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, warnings, err := config.Load(config.Source{File: a[0], NSQD: nsqd})
			if err != nil {
				return settingsError(err)
			}
			for _, w := range warnings {
				fmt.Fprintf(s.err, "%s\n", w)
			}
			if !asJSON {
				fmt.Fprintf(s.err, "%s is good\n", a[0])
				return nil
			}
			out := make(map[string]any)
			for _, f := range cfg.Fields() {
				out[f.Key()] = f.Value()
			}
			return printJSON(s.out, out)
		},
	}
	cmd.Flags().BoolVar(&nsqd, "nsqd", false, "read it as nsqd's configuration file")
	jsonFlag(cmd, &asJSON)
	return cmd
}
