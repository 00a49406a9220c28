package nsqadmin

import (
	"encoding/json"
	"maps"
	"slices"
)

// latency is the end-to-end processing latency of a topic or channel, of one
// nsqd or of several. A percentile is a small table: quantile, value (of one
// nsqd only), min, max, average, in nanoseconds, and count.
type latency struct {
	Count       int                  `json:"count"`
	Percentiles []map[string]float64 `json:"percentiles"`
	Topic       string               `json:"topic"`
	Channel     string               `json:"channel"`
	Host        string               `json:"host"`
}

// UnmarshalJSON reads what an nsqd says of itself: the only value is the least,
// the largest and the mean.
func (l *latency) UnmarshalJSON(text []byte) error {
	type plain latency
	if err := json.Unmarshal(text, (*plain)(l)); err != nil {
		return err
	}
	l.Percentiles = slices.DeleteFunc(l.Percentiles, func(p map[string]float64) bool { return p == nil })
	for _, p := range l.Percentiles {
		p["min"], p["max"], p["average"], p["count"] = p["value"], p["value"], p["value"], float64(l.Count)
	}
	return nil
}

func (l *latency) clone() *latency {
	if l == nil {
		return nil
	}
	c := *l
	c.Percentiles = nil
	for _, p := range l.Percentiles {
		c.Percentiles = append(c.Percentiles, maps.Clone(p))
	}
	return &c
}

// add merges the latency of a further nsqd; the averages by how many messages
// they are of.
func (l *latency) add(other *latency) {
	l.Host = "*"
	if other == nil {
		return
	}
	l.Count += other.Count
	for _, from := range other.Percentiles {
		i := slices.IndexFunc(l.Percentiles, func(p map[string]float64) bool { return p["quantile"] == from["quantile"] })
		if i < 0 {
			sum := maps.Clone(from)
			delete(sum, "value")
			l.Percentiles = append(l.Percentiles, sum)
			if sum["count"] == 0 {
				sum["average"] = 0
			}
			continue
		}
		to := l.Percentiles[i]
		to["max"] = max(to["max"], from["max"])
		to["min"] = min(to["min"], from["min"])
		if to["count"] += from["count"]; to["count"] == 0 {
			to["average"] = 0
			continue
		}
		to["average"] += (from["average"] - to["average"]) * from["count"] / to["count"]
	}
}
