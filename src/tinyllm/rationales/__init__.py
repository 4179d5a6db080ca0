"""Rationales: raw replies kept in a store, checked texts made from them."""
