"""Several backends behind one name: which one is asked, and which one goes on after a failure."""
