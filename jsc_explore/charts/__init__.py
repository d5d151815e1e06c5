"""Charts: a tidy table in, an Altair chart out. No Streamlit, no queries."""
