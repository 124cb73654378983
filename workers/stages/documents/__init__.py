"""The stage `documents`: attached files become text before the model is asked."""
