"""Messages about events: what they say, where they wait, how they are delivered."""
