"""Who does what, and when enough has arrived: pure state machines, told everything, that read no clock."""
