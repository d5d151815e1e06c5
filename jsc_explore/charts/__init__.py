"""Charts: each module turns data into a tidy table, and the table into an Altair chart. No Streamlit, no queries."""
