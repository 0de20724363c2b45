"""Small tools that every other room of core uses."""
