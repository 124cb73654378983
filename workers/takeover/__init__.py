"""How a new attempt joins the answer of earlier ones: continue, ask again, or begin anew."""
