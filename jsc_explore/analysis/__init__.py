"""Analysis: what the stored figures say, with their uncertainty. No torch, no screen, no SQL."""
