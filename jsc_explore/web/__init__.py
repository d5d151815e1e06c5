"""The Streamlit app: pages, their components and their state. The only package that imports Streamlit."""
