"""From answers to numbers: codes and the encoder."""
