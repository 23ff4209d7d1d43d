package tests

import (
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/pocketbase/pocketbase/tests"

	"github.com/pocketriver/pocketriver/hooks"
)

// The reference has every setting and every field.
func TestReference(t *testing.T) {
	t.Parallel()
	page := repositoryFile(t, "docs/reference.md")
	section := func(heading string) string {
		_, s, _ := strings.Cut(page, "\n## "+heading+"\n")
		s, _, _ = strings.Cut(s, "\n## ")
		return s
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[hooks.Config]()) {
		if !field.IsExported() {
			continue
		}
		if want := "`" + field.Name + " " + field.Type.String() + "`"; !strings.Contains(section("Settings"), want) {
			t.Errorf("Settings lacks %s", want)
		}
	}
	for _, name := range regexp.MustCompile(`MODELRIVER_[A-Z_]+`).FindAllString(repositoryFile(t, "hooks/env.go"), -1) {
		if !strings.Contains(section("Settings"), "`"+name+"`") {
			t.Errorf("Settings lacks %s", name)
		}
	}
	app, err := tests.NewTestApp(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer app.Cleanup()
	for _, name := range []string{"aiContent", "modelriverCallbacks", "aiRequests", "modelriverChannels", "modelriverAttempts", "modelriverRejections"} {
		collection, err := app.FindCollectionByNameOrId(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range collection.Fields.FieldNames() {
			if field != "id" && !strings.Contains(section("Collection `"+name+"`"), "`"+field+"`") {
				t.Errorf("%s lacks %s", name, field)
			}
		}
	}
	for _, name := range []string{"id", "payload", "headers", "scheme", "size", "created"} {
		if !strings.Contains(section("Table `modelriverPayloads`"), "`"+name+"`") {
			t.Errorf("modelriverPayloads lacks %s", name)
		}
	}
	help, err := exec.Command(buildBinary(t), "modelriver", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`(?m)^  ([a-z]+) {2,}[A-Z]`).FindAllStringSubmatch(string(help), -1) {
		if !strings.Contains(section("Commands"), "`"+match[1]+"`") && match[1] != "send" {
			t.Errorf("Commands lacks %s", match[1])
		}
	}
}
