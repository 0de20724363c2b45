"""Notifications about events: their texts, the outbox and the delivery."""
