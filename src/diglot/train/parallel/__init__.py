"""One run on many processes: who they are, what each of them holds, reads and computes."""
