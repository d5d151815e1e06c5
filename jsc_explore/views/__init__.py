"""Views: one page each. The only room that knows Streamlit."""
