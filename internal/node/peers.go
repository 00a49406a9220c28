package node

// handleBroker serves what other nodes ask of the shards that this one leads.
func (mb *member) handleBroker() {}
