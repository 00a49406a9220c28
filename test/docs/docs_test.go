// Package docs_test holds the pages of this repository together: their links lead
// somewhere, and the README says the same in both of its languages.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// pages are all Markdown files of the repository, by path from its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	skipped := []string{".git", "node_modules", "build", "bin", "vendor", "tidings-data"}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(skipped, d.Name()) {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".md") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			out[rel] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	indent  = regexp.MustCompile(`(?m)^(    |\t).*$`)
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)[^)]*\)|(?:src|srcset|href)="([^"]+)"|(?m:^\[[^\]]+\]:\s*(\S+))`)
	heading = regexp.MustCompile(`(?m)^(#+) +(.+?) *$`)
	marked  = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// prose is a page without its code.
func prose(text string) string {
	return code.ReplaceAllString(indent.ReplaceAllString(fence.ReplaceAllString(text, ""), ""), "")
}

// anchors are what links may name of a page, as GitHub makes them of headings.
func anchors(text string) map[string]bool {
	out := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		title := strings.ToLower(marked.ReplaceAllString(m[2], "$1"))
		var b strings.Builder
		for _, r := range title {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				b.WriteRune(r)
			}
		}
		name := b.String()
		for n := 1; out[name]; n++ {
			name = b.String() + "-" + string(rune('0'+n))
		}
		out[name] = true
	}
	return out
}

// targets are what a page leads to.
func targets(text string) []string {
	var out []string
	for _, m := range link.FindAllStringSubmatch(prose(text), -1) {
		out = append(out, m[1]+m[2]+m[3])
	}
	return out
}

func TestLinks(t *testing.T) {
	all := pages(t)
	n := 0
	for page, text := range all {
		for _, to := range targets(text) {
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			n++
			path, anchor, _ := strings.Cut(to, "#")
			file := page
			if path != "" {
				file = filepath.Join(filepath.Dir(page), path)
			}
			if strings.HasPrefix(file, "..") {
				t.Errorf("%s: %s leads out of the repository", page, to)
			} else if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %s leads nowhere", page, to)
			} else if anchor != "" && strings.HasSuffix(file, ".md") && !anchors(all[file])[anchor] {
				t.Errorf("%s: %s has no heading %s", page, file, anchor)
			}
		}
	}
	if n < 50 || len(all) < 30 {
		t.Errorf("only %d links on %d pages were found", n, len(all))
	}
}

// shape is a page without its words: what stands where, and what must be the same
// in every language.
func shape(text string) []string {
	out := fence.FindAllString(text, -1)
	rest := fence.ReplaceAllString(text, "[code]")
	for line := range strings.Lines(rest) {
		kind, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.HasPrefix(line, "#"), strings.HasPrefix(line, "- "), strings.HasPrefix(line, "[code]"), strings.HasPrefix(line, "<"):
		case strings.HasPrefix(line, "|"):
			kind = strings.Repeat("|", strings.Count(line, "|"))
		case strings.TrimSpace(line) == "":
			continue
		default:
			kind = "text"
		}
		words := code.FindAllString(line, -1)
		for _, to := range targets(line) {
			words = append(words, strings.ReplaceAll(to, "console-zh-", "console-"))
		}
		slices.Sort(words)
		out = append(out, kind+" "+strings.Join(words, " "))
	}
	return out
}

// README.zh-CN.md is README.md, paragraph by paragraph: the same commands, names
// and links.
func TestReadmesAgree(t *testing.T) {
	all := pages(t)
	english, chinese := all["README.md"], all["README.zh-CN.md"]
	chinese = strings.Replace(chinese, "[English](README.md) · 简体中文", "English · [简体中文](README.zh-CN.md)", 1)
	if d := cmp.Diff(shape(english), shape(chinese)); d != "" {
		t.Errorf("README.md (-) and README.zh-CN.md (+) differ:\n%s", d)
	}
	numbers := regexp.MustCompile(`\d[\d.,]*[MkB]?(/s)?`)
	tables := func(text string) (out []string) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "|") {
				out = append(out, strings.Join(numbers.FindAllString(line, -1), " "))
			}
		}
		return out
	}
	if d := cmp.Diff(tables(english), tables(chinese)); d != "" {
		t.Errorf("the tables have other numbers:\n%s", d)
	}
}

// What the README says to type is there: stages of test/run and targets of make.
func TestReadmeCommands(t *testing.T) {
	readme := pages(t)["README.md"]
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	stages, makefile := read("test/run"), read("Makefile")
	n := 0
	for _, m := range regexp.MustCompile("`(./test/run|make) ([a-z -]+)`").FindAllStringSubmatch(readme, -1) {
		for name := range strings.FieldsSeq(m[2]) {
			n++
			in, at := stages, `(?m)^(stage|begin) `+name+` `
			if m[1] == "make" {
				in, at = makefile, `(?m)^`+name+`:`
			}
			if !regexp.MustCompile(at).MatchString(in) {
				t.Errorf("%s %s is not there", m[1], name)
			}
		}
	}
	if n < 6 {
		t.Errorf("only %d commands were found", n)
	}
}
