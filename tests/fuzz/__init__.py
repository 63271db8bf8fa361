"""Every parser is fed damaged and hostile input; each answers with a value or an error of ours."""
