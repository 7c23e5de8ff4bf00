"""The rehearsal: runs the synthesized cloud assembly on one machine, with no AWS account."""
