// Command build bundles the console's sources into ../../dist, the folder that
// the node embeds. With -check it changes nothing and fails when the committed
// bundle is not what the sources give. With -watch it bundles on each change.
//
// It is a module of its own, so that the node does not depend on a bundler. It
// takes its npm packages from ../vendor: no network and no Node.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	check := flag.Bool("check", false, "fail when the committed bundle differs")
	test := flag.String("test", "", "bundle the tests into this file instead, for Node")
	watch := flag.Bool("watch", false, "bundle again on each change, without minifying, until interrupted")
	web := flag.String("web", "..", "folder of the sources")
	flag.Parse()
	if err := run(*web, *test, *check, *watch); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(web, test string, check, watch bool) error {
	web, err := filepath.Abs(web)
	if err != nil {
		return err
	}
	o := options(web)
	licences, err := banner(web)
	if err != nil {
		return err
	}
	o.Banner = map[string]string{"js": licences}
	if test != "" {
		o.EntryPointsAdvanced = []api.EntryPoint{{InputPath: "test.ts", OutputPath: "test"}}
	}
	if watch {
		return follow(o)
	}
	result := api.Build(o)
	if len(result.Errors) > 0 {
		return fmt.Errorf("%d errors", len(result.Errors))
	}
	if test != "" {
		return os.WriteFile(test, result.OutputFiles[0].Contents, 0o644)
	}
	for _, f := range result.OutputFiles {
		if err := settle(f, check); err != nil {
			return err
		}
	}
	return nil
}

// options say how the bundle is made; what they give depends on the sources and
// the bundler's version alone.
func options(web string) api.BuildOptions {
	vendor := filepath.Join(web, "vendor")
	return api.BuildOptions{
		AbsWorkingDir: web,
		EntryPointsAdvanced: []api.EntryPoint{
			{InputPath: "src/main.tsx", OutputPath: "app"},
			{InputPath: "src/style/index.css", OutputPath: "style"},
		},
		Outdir: filepath.Join(web, "..", "dist"),
		Bundle: true, MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true,
		Format: api.FormatIIFE, Target: api.ES2022, Charset: api.CharsetUTF8,
		JSX: api.JSXAutomatic, JSXImportSource: "preact",
		LegalComments: api.LegalCommentsEndOfFile,
		TsconfigRaw:   `{"compilerOptions": {"jsx": "react-jsx", "jsxImportSource": "preact"}}`,
		Alias: map[string]string{
			"preact":             filepath.Join(vendor, "preact/dist/preact.mjs"),
			"preact/hooks":       filepath.Join(vendor, "preact/hooks/dist/hooks.mjs"),
			"preact/jsx-runtime": filepath.Join(vendor, "preact/jsx-runtime/dist/jsxRuntime.mjs"),
			"uplot":              filepath.Join(vendor, "uplot/dist/uPlot.esm.js"),
		},
		LogLevel: api.LogLevelWarning,
	}
}

// banner is what the licences of the vendored packages want to stand in a copy.
func banner(web string) (string, error) {
	var text strings.Builder
	for _, name := range []string{"preact", "uplot"} {
		licence, err := os.ReadFile(filepath.Join(web, "vendor", name, "LICENSE"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "/*! Contains %s.\n\n%s\n*/\n", name, strings.TrimSpace(string(licence)))
	}
	return text.String(), nil
}

// settle writes a file of the bundle, or compares it with the committed one.
func settle(f api.OutputFile, check bool) error {
	if !check {
		return os.WriteFile(f.Path, f.Contents, 0o644)
	}
	committed, err := os.ReadFile(f.Path)
	if err != nil {
		return err
	}
	if !bytes.Equal(committed, f.Contents) {
		return fmt.Errorf("%s is not what the sources give; run `make console` and commit it", filepath.Base(f.Path))
	}
	return nil
}

// follow bundles on each change, until the process is interrupted.
func follow(o api.BuildOptions) error {
	o.Write, o.LogLevel = true, api.LogLevelInfo
	ctx, err := api.Context(o)
	if err != nil {
		return err
	}
	if err := ctx.Watch(api.WatchOptions{}); err != nil {
		return err
	}
	<-make(chan struct{})
	return errors.New("unreachable")
}
