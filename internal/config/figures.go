package config

import (
	"crypto/md5" //nolint:gosec // nsqd's way from a host name to a number
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
)

// validateFigures looks at the settings of statsd, of latency and of node-id.
func (c *Config) validateFigures() error {
	if c.StatsdAddress != "" {
		if err := checkAddress(c.StatsdAddress); err != nil {
			return fmt.Errorf("--statsd-address %q: %w", c.StatsdAddress, err)
		}
	}
	if _, err := c.Quantiles(); err != nil {
		return fmt.Errorf("--e2e-processing-latency-percentile %w", err)
	}
	if _, err := c.NodeNumber(""); err != nil {
		return fmt.Errorf("--node-id %q: %w", c.NodeID, err)
	}
	return nil
}

// Quantiles reads e2e-processing-latency-percentile: the largest first, as in
// nsqd.
func (c *Config) Quantiles() ([]float64, error) {
	list := []float64{}
	for _, text := range c.LatencyPercentiles {
		q, err := strconv.ParseFloat(text, 64)
		if err != nil || !(q > 0 && q <= 1) {
			return nil, fmt.Errorf("%q: want quantiles above 0 and up to 1, such as 1,0.99,0.95", text)
		}
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b float64) int {
		switch {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	return list, nil
}

// NodeNumber reads node-id; where it is empty, the number is what nsqd makes of
// the host name.
func (c *Config) NodeNumber(host string) (int, error) {
	if c.NodeID == "" {
		sum := md5.Sum([]byte(host)) //nolint:gosec // as above
		return int(crc32.ChecksumIEEE(sum[:]) % 1024), nil
	}
	n, err := strconv.Atoi(c.NodeID)
	if err != nil || n < 0 || n >= 1024 {
		return 0, errors.New("want a number from 0 to 1023")
	}
	return n, nil
}
