"""The methods to beat: also the worked example for outside plugins."""
