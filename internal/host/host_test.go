package host

import (
	"os"
	"runtime"
	"testing"
)

func TestSelf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("nothing is known elsewhere")
	}
	before := Self()
	if before.OpenFiles < 3 || before.OpenFilesMax < before.OpenFiles || before.Resident < 1<<20 {
		t.Errorf("%+v", before)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if after := Self(); after.OpenFiles != before.OpenFiles+1 {
		t.Errorf("%d open files, then %d", before.OpenFiles, after.OpenFiles)
	}
	if kind := Filesystem("/no/such/folder"); kind != "" {
		t.Error(kind)
	}
	if kind := Filesystem("/dev/shm"); kind != "tmpfs" {
		if _, err := os.Stat("/dev/shm"); err == nil {
			t.Errorf("/dev/shm is %q", kind)
		}
	}
}
