"""Analysis: statistics of stored metrics, with their uncertainty. No torch, no Streamlit, no SQL."""
