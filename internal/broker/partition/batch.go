package partition

// AppendBatch appends the record batch of messages that no shard carries, as a
// publish would make it, with base offset 0.
func AppendBatch(dst []byte, msgs []Message, timeNs int64) []byte {
	var w writer
	w.builder.Begin(dst, timeNs/1e6)
	for i := range msgs {
		w.builder.Add(w.record(&msgs[i]))
	}
	return w.builder.Finish()
}
