package hooks

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/pocketriver/pocketriver/hooks/internal/nodes"
	"github.com/pocketriver/pocketriver/hooks/internal/store"
)

// wellNodes are three of which one lags no more than each does from time to time.
var wellNodes = []NodeState{
	{Name: "a", Address: "10.0.0.1:8100", Here: true, Reached: true, Position: 7, LagSeconds: 0.5, Same: map[string]string{"PocketRiver": "1.2"}},
	{Name: "b", Address: "10.0.0.2:8100", Reached: true, Leads: true, Position: 9, ClockSeconds: -0.01},
	{Name: "c", Address: "10.0.0.3:8100", Reached: true, Position: 8, Behind: 1, LagSeconds: 1.5},
}

// sickNodes are three without one that leads.
var sickNodes = []NodeState{
	{Name: "a", Address: "10.0.0.1:8100", Here: true, Reached: true, Position: 7, Behind: 2, LagSeconds: 60.4, Differs: []string{"its clock is far"}},
	{Name: "b", Address: "10.0.0.2:8100", Position: 9, LagSeconds: 42.9, ClockSeconds: 1},
	{Name: "c", Address: "10.0.0.3:8100", Reached: true, Position: 9, ClockSeconds: 3.5, Differs: []string{"its PocketRiver is 1.3, and here 1.2", "its clock is 4s ahead"}},
}

// newNodesServer serves one of several nodes, which stand as the states say.
func newNodesServer(t *testing.T) (s *node, states *atomic.Pointer[[]NodeState]) {
	config := testConfig()
	config.MetricsToken = testMetricsToken
	s = (&cluster{}).newNode(t, "a", true, config)
	s.states.Store(&wellNodes)
	return s, &s.states
}

// The figures tell how the nodes stand, and the same again while all is well.
func TestStatsTellOfNodes(t *testing.T) {
	t.Parallel()
	s, states := newNodesServer(t)
	token := superuserToken(t, s)
	read := func() any {
		t.Helper()
		status, body := s.get(t, "/api/modelriver/stats", token)
		if status != 200 {
			t.Fatalf("got %d %v", status, body)
		}
		return body["nodes"]
	}
	well := read()
	if got, want := fmt.Sprint(well), "[map[address:10.0.0.1:8100 behind: differs:[] here:true leads:false name:a reached:true]"+
		" map[address:10.0.0.2:8100 behind: differs:[] here:false leads:true name:b reached:true]"+
		" map[address:10.0.0.3:8100 behind: differs:[] here:false leads:false name:c reached:true]]"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	later := append([]NodeState{}, wellNodes...)
	for i := range later {
		later[i].Position += 10
		later[i].LagSeconds /= 2
		later[i].ClockSeconds += 0.02
	}
	states.Store(&later)
	if again := read(); !reflect.DeepEqual(again, well) {
		t.Errorf("got %v, and before %v", again, well)
	}
	states.Store(&sickNodes)
	if got, want := fmt.Sprint(read()), "[map[address:10.0.0.1:8100 behind:2 entries and 1m0s behind differs:[its clock is far] here:true leads:false name:a reached:true]"+
		" map[address:10.0.0.2:8100 behind:42s behind differs:[] here:false leads:false name:b reached:false]"+
		" map[address:10.0.0.3:8100 behind: differs:[its PocketRiver is 1.3, and here 1.2 its clock is 4s ahead] here:false leads:false name:c reached:true]]"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}

	alone := newTestServer(t, testConfig())
	if _, body := alone.get(t, "/api/modelriver/stats", superuserToken(t, alone)); body["nodes"] != nil {
		t.Errorf("one node tells of %v", body["nodes"])
	}
}

func TestMetricsTellOfNodes(t *testing.T) {
	t.Parallel()
	s, states := newNodesServer(t)
	want := func(want map[string]float64) {
		t.Helper()
		got := s.metrics(t)
		for name := range got {
			if _, ok := want[name]; !ok && len(name) > 15 && name[:15] == "modelriver_node" {
				t.Errorf("%s is there", name)
			}
		}
		for name, value := range want {
			if v, ok := got[name]; !ok || v != value {
				t.Errorf("%s: got %v, %v, want %v", name, v, ok, value)
			}
		}
	}
	want(map[string]float64{
		"modelriver_node_reached node=a": 1, "modelriver_node_reached node=b": 1, "modelriver_node_reached node=c": 1,
		"modelriver_node_leads node=a": 0, "modelriver_node_leads node=b": 1, "modelriver_node_leads node=c": 0,
		"modelriver_node_position node=a": 7, "modelriver_node_position node=b": 9, "modelriver_node_position node=c": 8,
		"modelriver_node_lag_seconds node=a": 0.5, "modelriver_node_lag_seconds node=b": 0, "modelriver_node_lag_seconds node=c": 1.5,
		"modelriver_node_clock_seconds node=a": 0, "modelriver_node_clock_seconds node=b": -0.01, "modelriver_node_clock_seconds node=c": 0,
		"modelriver_node_differences node=a": 0, "modelriver_node_differences node=b": 0, "modelriver_node_differences node=c": 0,
	})
	states.Store(&sickNodes)
	want(map[string]float64{
		"modelriver_node_reached node=a": 1, "modelriver_node_reached node=b": 0, "modelriver_node_reached node=c": 1,
		"modelriver_node_leads node=a": 0, "modelriver_node_leads node=b": 0, "modelriver_node_leads node=c": 0,
		"modelriver_node_position node=a": 7, "modelriver_node_position node=c": 9,
		"modelriver_node_lag_seconds node=a": 60.4, "modelriver_node_lag_seconds node=b": 42.9, "modelriver_node_lag_seconds node=c": 0,
		"modelriver_node_clock_seconds node=a": 0, "modelriver_node_clock_seconds node=c": 3.5,
		"modelriver_node_differences node=a": 1, "modelriver_node_differences node=c": 2,
	})
}

func TestStatusTellsOfNodes(t *testing.T) {
	t.Parallel()
	s, states := newNodesServer(t)
	wantLines(t, mustRun(t, s.plugin, "status"), `^node a +follows +10\.0\.0\.1:8100$`, `^node b +leads +10\.0\.0\.2:8100$`, `^node c +follows +10\.0\.0\.3:8100$`)
	states.Store(&sickNodes)
	wantLines(t, mustRun(t, s.plugin, "status"), `^node a +follows +10\.0\.0\.1:8100; 2 entries and 1m0s behind; its clock is far$`, `^node b +lost +10\.0\.0\.2:8100; 42s behind$`,
		`^node c +follows +10\.0\.0\.3:8100; its PocketRiver is 1\.3, and here 1\.2; its clock is 4s ahead$`)
	var report struct{ Nodes []nodes.State }
	if err := json.Unmarshal([]byte(mustRun(t, s.plugin, "status", "--json")), &report); err != nil || !reflect.DeepEqual(report.Nodes, sickNodes) {
		t.Errorf("got %v, %+v", err, report)
	}
}

func TestDoctorTellsOfNodes(t *testing.T) {
	t.Parallel()
	s, states := newNodesServer(t)
	token := superuserToken(t, s)
	want := func(want ...string) {
		t.Helper()
		_, body := s.get(t, "/api/modelriver/doctor", token)
		var got []string
		for _, finding := range body["findings"].([]any) {
			if f := finding.(map[string]any); f["check"] == "nodes" {
				got = append(got, fmt.Sprint(f["grade"], ": ", f["text"]))
				if (f["remedy"] == "") != (f["grade"] == "ok") {
					t.Errorf("got %v", f)
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q", got)
		}
	}
	want("ok: 3 nodes, all alike; b leads")
	states.Store(&sickNodes)
	want("warning: a is 2 entries and 1m0s behind", "warning: a is not as most of the others: its clock is far", "warning: b does not answer at 10.0.0.2:8100",
		"warning: c is not as this node: its PocketRiver is 1.3, and here 1.2; its clock is 4s ahead", "problem: none leads, so that nothing can be stored")
}

// Who looks for a webhook as it came on a node that doesn't have it is told that another one may.
func TestPayloadThatAnotherNodeMayHave(t *testing.T) {
	t.Parallel()
	s, _ := newNodesServer(t)
	s.mustPost(t, generated("1", `{}`, ""))
	payloadsOf(t, s.testServer)
	if _, err := s.AuxNonconcurrentDB().DropTable(store.Payloads).Execute(); err != nil {
		t.Fatal(err)
	}
	_, err := runCommand(s.plugin, "deliveries", records(t, s.testServer, store.Content)[0].Id, "--payload")
	wantError(t, err, "another node has it, which led then: run this on that one")
}
