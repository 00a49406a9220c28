package parked

// Entry is one parked message.
type Entry struct {
	Offset   int64
	DueNs    int64 // unix ns before which it is not to be delivered
	Attempts uint16
}
