"""Champion against challenger: evaluation, gates, and which version serves."""
