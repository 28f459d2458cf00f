"""What a served model was asked and what it answered, compared with what it was tested on."""
